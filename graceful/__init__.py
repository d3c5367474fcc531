"""Web processes that stop the way the field's best do it."""
