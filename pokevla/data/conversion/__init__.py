"""What all conversions share: processes that make parts, and the folder in which finished parts wait."""
