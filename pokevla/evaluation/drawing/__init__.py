"""Pictures and videos of trials: what the policy saw and did, and what came out."""
