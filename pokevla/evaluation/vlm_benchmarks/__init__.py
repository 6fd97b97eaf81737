"""Published benchmarks of vision-language models: Where2Place, RefSpatial-Bench, CV-Bench."""
