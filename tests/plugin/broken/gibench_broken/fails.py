"""Cannot be imported."""

print("printed on import")
raise RuntimeError("an old\nlibrary")
