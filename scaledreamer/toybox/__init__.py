"""Toybox: a small world of coloured toys whose 3D truth is known, to train, test and measure everything in minutes."""
