from invdiff_app.explaining import page

page()
