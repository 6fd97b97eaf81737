"""Images on their way from a file to the model: crops and colours, and pixels on the device."""
