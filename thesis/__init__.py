"""What the thesis is built from: measurements, figures and text."""
