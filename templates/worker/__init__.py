"""One script a verb. ``cloudai.scripts`` renders them; read its rule on quoting first."""
