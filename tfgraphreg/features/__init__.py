"""What a graph compares: descriptors of images as rows of numbers."""
