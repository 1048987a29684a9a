"""The room's pages without a browser or a server: what is drawn for whom, and nothing where rooms are switched off."""

from __future__ import annotations

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.frame.runs import server_jobs
from app.room import ensemble, me
from app.server import SCRIPT

SMALL = {"v": "1", "preset": "shape_matters", "steps": "60", "n_train": "5", "dim": "8", "sparsity": "2"}


@pytest.fixture(autouse=True)
def own_server():
    """Each test has a server of its own: its jobs, its pools and its rooms."""
    for cached in (server_jobs, ensemble.server_pools, me.rooms):
        cached.cache_clear()
    st.cache_resource.clear()
    yield
    for cached in (server_jobs, ensemble.server_pools, me.rooms):
        cached.cache_clear()
    st.cache_resource.clear()


def opened(**query):
    app = AppTest.from_file(str(SCRIPT), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def test_rooms_can_be_switched_off(monkeypatch, own_store):
    monkeypatch.setenv("CHALKLINE_ROOMS", "off")
    app = opened(room="KXQZ")
    assert not app.exception and "room" not in app.query_params
    assert any("Rooms are switched off" in box.value for box in app.warning)
    assert not own_store.with_name("rooms.sqlite").exists()
