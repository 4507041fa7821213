"""The app: `invdiff app`, or `streamlit run apps/app.py`."""

from pathlib import Path

import streamlit as st
from invdiff_app import text
from invdiff_app.guard import guarded
from invdiff_app.session import remember_settings, take_settings_along

st.set_page_config(text.TITLE, layout="wide", menu_items={"About": text.ABOUT})
st.html(Path(__file__).parent / "invdiff_app" / "style.css")
st.set_option("client.showErrorDetails", "none")
pages = [st.Page(f"views/{name}.py", title=title, url_path="" if name == "restore" else name, default=name == "restore")
         for name, title in text.PAGES.items()]
page = st.navigation(pages, position="top")
with guarded():
    take_settings_along(page.url_path)
    page.run()
    remember_settings(page.url_path)
