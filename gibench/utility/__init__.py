"""What a defense costs: training runs with and without it, their accuracy, time and bytes (rule E13)."""
