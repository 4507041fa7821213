"""What the tables of docs/ were measured with: each module writes a page of them."""
