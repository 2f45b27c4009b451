SQL = """\
SELECT a,
       b  -- "quoted" 'text'
FROM source
WHERE x = '# no comment'
"""
