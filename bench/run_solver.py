"""Solve positions of Connect Four in this process: columns as played in, scores of all legal moves out, as JSON.

Runs in the solver's own virtual environment: bitbully is under the AGPL, and no part of Renshu. A score is higher the
sooner a win and the later a loss comes; 0 is a draw.
"""

import json
import sys

from bitbully import BitBully, Board

solver = BitBully()
print(json.dumps([solver.score_all_moves(Board(columns)) for columns in json.load(sys.stdin)]))
