"""What a policy looks at: masks of its goal, attention of the action head and of the language model."""
