"""How the site's commands of the rehearsal network are started: by a script that starts fast."""
