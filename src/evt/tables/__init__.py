"""The paper's tables and the small ones, beside what this code gives."""
