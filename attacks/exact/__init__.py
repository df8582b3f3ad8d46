"""What the attacks that recover images exactly share."""
