"""What LIBERO-Plus changes that needs no further files: the camera, the robot's first pose, noise on the images."""
