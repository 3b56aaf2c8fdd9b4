"""Why a network does not learn: what is measured while it trains, and what that means."""
