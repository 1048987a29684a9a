"""The screen: Streamlit pages over the labs, and the server that carries them."""
