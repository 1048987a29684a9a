"""The app: a gallery, one page for each lab, found by its folder, and what all labs share."""

from __future__ import annotations

# A worker process first runs this file again, under another name: it must not draw pages there, nor load what
# only pages need.
if __name__ == "__main__":
    from functools import partial

    import streamlit as st

    from app.frame.look import ICON
    from app.frame.page import lab_page
    from app.frame.stage import STAGE
    from app.home import home
    from app.ledger import ledger_page
    from app.room import frame, me
    from app.room.panel import room_page
    from app.runs import runs_page
    from app.sweeps import sweeps
    from sims import all_labs

    with STAGE.taken():
        st.set_page_config(page_title="Chalkline", page_icon=ICON, layout="wide")

        pages = {
            lab.id: st.Page(partial(lab_page, lab.id, frame.asked_instead), title=lab.title, url_path=lab.id)
            for lab in all_labs()
        }
        front = st.Page(lambda: home(pages), title="Chalkline", url_path="home", default=True, icon=":material/home:")
        sweeping = st.Page(sweeps, title="Sweeps", url_path="sweeps")
        ledger = st.Page(ledger_page, title="Ledger", url_path="ledger")
        runs = st.Page(lambda: runs_page(pages), title="This tab's runs", url_path="runs")
        room = st.Page(lambda: room_page(pages, "room"), title="Room", url_path="room")
        shared = [front, sweeping, ledger, runs, *([room] if me.rooms() is not None else [])]
        chosen = st.navigation({"": shared, "Labs": list(pages.values())}, position="top")
        frame.run(chosen, pages, room)
