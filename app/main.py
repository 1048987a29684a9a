"""The app: a home page, one page for each lab, found by its folder, and the page of sweeps."""

from __future__ import annotations

# A worker process first runs this file again, under another name: it must not draw pages there, nor load what
# only pages need.
if __name__ == "__main__":
    from functools import partial
    from pathlib import Path

    import streamlit as st

    from app.frame.page import lab_page
    from app.home import home
    from app.sweeps import sweeps
    from sims import all_labs

    st.set_page_config(page_title="Chalkline", page_icon=str(Path(__file__).with_name("icon.png")), layout="wide")

    pages = {lab.id: st.Page(partial(lab_page, lab.id), title=lab.title, url_path=lab.id) for lab in all_labs()}
    front = st.Page(lambda: home(pages), title="Chalkline", url_path="home", default=True, icon=":material/home:")
    sweeping = st.Page(sweeps, title="Sweeps", url_path="sweeps", icon=":material/grid_on:")
    st.navigation({"": [front, sweeping], "Labs": list(pages.values())}, position="top").run()
