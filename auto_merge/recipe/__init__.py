"""What a merged model is: values, files, names. No torch."""
