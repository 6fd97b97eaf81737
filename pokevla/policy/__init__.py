"""A trained model as a policy: observation in, action chunk out."""
