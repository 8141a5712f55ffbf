"""Recado: agents that answer people on Telegram, WhatsApp and the web. `ls shared` is the architecture."""
