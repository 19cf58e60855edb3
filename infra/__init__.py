"""ShopCat on AWS: the Pulumi program."""
