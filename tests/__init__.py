"""Tests of dsdoctor."""
