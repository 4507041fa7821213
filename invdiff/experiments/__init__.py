"""What pages of docs/ were measured with, beside `invdiff benchmark`: scripts, each of which writes its page, and what
one of them needs."""
