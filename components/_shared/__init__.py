"""What more than one stage needs: errors, sealed folders, datasets, models, reports."""
