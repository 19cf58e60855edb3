"""What the program's settings cost in AWS, from prices that each have a source (``make cost``)."""
