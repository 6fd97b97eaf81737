"""RLDS datasets as TFDS stores them: TFRecord files of episodes, read without TensorFlow."""
