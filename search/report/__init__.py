"""The page about a run, and its pictures."""

from search.report.page import render as render
from search.report.page import write as write
