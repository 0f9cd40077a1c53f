"""JupyterLab and the app as people use them: real servers and kernels, headless Chromium, no other network."""
