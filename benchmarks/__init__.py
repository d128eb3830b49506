"""What nemotron-exec costs, beside what people use today: `make bench`."""
