from invdiff_app.scanning import page

page()
