"""What users run: setup_env.py, lab.py and run_notebook.py. The rest serves developers.

`dev/` keeps the notebook in order and tries it in a browser, `render_imgs/` made the pictures and
`pretrain_body/` the network's body.
"""
