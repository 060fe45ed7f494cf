"""Runs the test suites of PostgreSQL drivers directly against PostgreSQL and through pgusher."""

from .pytest_suites import Asyncpg, Psycopg
from .rust_suites import Sqlx, TokioPostgres

SUITES = {suite.name: suite for suite in (Psycopg, Asyncpg, TokioPostgres, Sqlx)}
