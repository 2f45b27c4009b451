"""The local platform: an endpoint is a folder, its versions are processes, and HAProxy stands before them.

STATE/NAME/
  endpoint.json        what there is, written whole; state.py
  lock                 held while that is changed
  proxy/               HAProxy: its configuration, its maps, its socket, its log; proxy.py
  versions/VERSION/    model/, a copy; requests/, the request log; server.log
"""
