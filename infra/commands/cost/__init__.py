"""Cost of the program's settings in AWS, from prices that each have a source (``make cost``)."""
