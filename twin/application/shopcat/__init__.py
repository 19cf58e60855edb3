"""A stand-in for ShopCat's application."""
