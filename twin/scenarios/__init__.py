"""What is done with the twin: ShopCat's production, previews, and the pipeline's own scripts."""
