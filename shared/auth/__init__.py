"""Who makes a request, and may they.

`api_key` knows callers, `oidc` pushes, `callback_token` whoever ends a wait.
"""
