"""Who makes a request, and may they.

`api_key` knows callers, `oidc` pushes, `firebase` who signed in to the web client, `callback_token` whoever ends a
wait; `tokens` reads what issuers signed.
"""
