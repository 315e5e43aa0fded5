"""
A stand-in for the web front of Docker's example-voting-app, written from its behaviour (vote/app.py
at 63e9150): Flask; a cookie that is not signed; the vote, which is not looked at, is logged and
pushed to a Redis list by a connection that lasts for the request; a page of about the same length
is rendered from a template. Who stores the votes is another program, which is not measured here.

It runs under gunicorn in a virtual environment of its own, with the options of that project.
"""

import json
import logging
import os
import secrets
import socket

from flask import Flask, Response, g, make_response, render_template, request
from jinja2 import DictLoader
from redis import Redis

REDIS_PORT = int(os.environ["PEER_REDIS_PORT"])
STYLES = "\n".join(
    f'    <link rel="stylesheet" href="https://styles.example/{name}/2.0/{name}.min.css">'
    for name in ("reset", "font")
)
PAGE = f"""\
<!DOCTYPE html>
<html>
  <head>
    <meta charset="utf-8">
    <title>{{{{ first }}}} or {{{{ second }}}}?</title>
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="stylesheet" href="{{{{ url_for('static', filename='page.css') }}}}">
{STYLES}
  </head>
  <body>
    <main>
      <h1>{{{{ first }}}} or {{{{ second }}}}?</h1>
      <form method="post" action="/">
        <button type="submit" name="vote" value="a" class="a">{{{{ first }}}}</button>
        <button type="submit" name="vote" value="b" class="b">{{{{ second }}}}</button>
      </form>
      <p>You may change your vote.</p>
      <p>Served by {{{{ host }}}}</p>
    </main>
    <script src="https://scripts.example/library/2.0/library.min.js"></script>
    {{% if vote %}}
    <script>
      const chosen = document.querySelector(".{{{{ vote }}}}");
      for (const button of document.querySelectorAll("button")) {{
        if (button === chosen) {{
          button.disabled = true;
          button.append(" (your vote)");
          button.classList.add("chosen");
        }} else {{
          button.style.opacity = 0.5;
          button.classList.remove("chosen");
        }}
      }}
    </script>
    {{% endif %}}
  </body>
</html>
"""

app = Flask(__name__)
app.jinja_loader = DictLoader({"page.html": PAGE})
app.logger.handlers.extend(logging.getLogger("gunicorn.error").handlers)
app.logger.setLevel(logging.INFO)


def votes() -> Redis:
    """Return this request's connection."""
    if "redis" not in g:
        g.redis = Redis(port=REDIS_PORT, socket_timeout=5)
    kept: Redis = g.redis
    return kept


@app.route("/", methods=["GET", "POST"])
def page() -> Response:
    """Take a vote, if there is one, and show the page."""
    voter, vote = request.cookies.get("voter_id") or secrets.token_hex(8), None
    if request.method == "POST":
        vote = request.form["vote"]
        app.logger.info("vote for %s", vote)
        votes().rpush("votes", json.dumps({"voter_id": voter, "vote": vote}))
    body = render_template(
        "page.html", first="Cats", second="Dogs", host=socket.gethostname(), vote=vote
    )
    response = make_response(body)
    response.set_cookie("voter_id", voter)
    return response
