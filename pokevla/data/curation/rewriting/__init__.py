"""Questions for labels of one verb and one noun: templates with grammar, or phrasings of a language model, checked."""
