"""What coordinator and agents both speak: words, identities, layout of the flat space, transports."""
