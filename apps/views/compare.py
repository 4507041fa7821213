from invdiff_app.comparing import page

page()
