from invdiff_app.restoring import page

page()
