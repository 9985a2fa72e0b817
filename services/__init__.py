"""What serves in the cloud: each service is a folder with its code and its Dockerfile."""
