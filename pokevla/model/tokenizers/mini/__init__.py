"""Files of the small tokenizer; a package so that they are installed with the rest."""
